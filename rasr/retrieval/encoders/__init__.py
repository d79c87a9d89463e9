"""Image encoders: one file each, behind `base.ImageEncoder`."""
