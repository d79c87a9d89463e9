"""Networks: the one-step backbone, RASRNet over it and a reference fusion, their weights.

Names are loaded when they are asked for: `rasr.fusion` needs the backbone's files, and the net's need
`rasr.fusion`.
"""

from rasr.lazy import lazy_names

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "SHIPPED_WEIGHTS": "rasr.models.finding",
        "DinoDiscriminator": "rasr.models.discriminator",
        "OneStepBackbone": "rasr.models.backbone",
        "RASRNet": "rasr.models.rasr_net",
        "RASRNetConfig": "rasr.models.config",
        "ReferenceFeatures": "rasr.fusion.reference_features",
        "ResidualFusion": "rasr.fusion.residual",
        "build_backbone_net": "rasr.models.build",
        "build_rasr_net": "rasr.models.build",
        "find_weights": "rasr.models.finding",
        "load_base_vae": "rasr.models.backbone",
        "load_rasr_net": "rasr.models.weights",
        "make_small_backbone": "rasr.models.small",
        "make_tiny_backbone": "rasr.models.tiny",
        "save_weights": "rasr.models.weights",
        "upload_folder": "rasr.models.pretrained_folder",
    },
)
