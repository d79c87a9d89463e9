"""The one file that imports basicsr, and exactly the names that the degradation uses.

basicsr 1.4.2, the newest release, still imports `torchvision.transforms.functional_tensor`, which current
torchvision no longer has. The function it wants lives on in `torchvision.transforms.functional`, so that
module stands in under the old name while basicsr is imported. basicsr also switches off NumPy's
division warnings for the whole process; they are put back.
"""

import sys

import numpy as np
import torchvision.transforms.functional as torchvision_functional

from rasr.errors import RasrError

_REMOVED_MODULE = "torchvision.transforms.functional_tensor"
_is_stand_in = _REMOVED_MODULE not in sys.modules
_numpy_errors = np.geterr()

sys.modules.setdefault(_REMOVED_MODULE, torchvision_functional)
try:
    from basicsr.data.degradations import (
        bivariate_Gaussian,
        bivariate_generalized_Gaussian,
        bivariate_plateau,
        circular_lowpass_kernel,
    )
    from basicsr.utils import USMSharp
    from basicsr.utils.diffjpeg import c_table, y_table
except ImportError as error:
    raise RasrError(f"basicsr cannot be imported ({error}); run: pip install basicsr==1.4.2") from error
finally:
    np.seterr(**_numpy_errors)
    if _is_stand_in:
        del sys.modules[_REMOVED_MODULE]

__all__ = [
    "USMSharp",
    "bivariate_Gaussian",
    "bivariate_generalized_Gaussian",
    "bivariate_plateau",
    "c_table",
    "circular_lowpass_kernel",
    "y_table",
]
