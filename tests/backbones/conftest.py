"""The small networks of the model tests."""

from tests.models.conftest import backbone, fresh_net, images, trained_net

__all__ = ["backbone", "fresh_net", "images", "trained_net"]
