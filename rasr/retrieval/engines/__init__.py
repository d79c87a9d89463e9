"""Engines of the reference index: one file each, behind `base.ReferenceIndex`."""
