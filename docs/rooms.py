"""The rooms of rasr/ and who may know whom: the dependency test and the map of the code read it here."""

FLOORS = (
    # Lowest first. A room may import all below it; rooms of one floor know nothing of each other.
    {"errors", "moved"},
    {"checks", "config", "device", "image_io", "image_ops", "plugins", "pretrained", "seeding"},
    {"composing", "degradation", "losses", "prompts"},
    {"data", "preparation", "retrieval"},
    {"backbones"},
    {"fusion"},
    {"drawing", "models", "references"},
    {"refir", "inference"},
    {"training", "evaluation", "indexing"},
    {"cli"},
    {"tools"},
)
WITHIN = {("preparation", "data"), ("refir", "inference"), ("training", "evaluation")}
"""Pairs of one floor of which the rooms may know each other; their files still have no circle."""
