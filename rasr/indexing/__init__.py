"""Making reference indexes: retrieval together with manifests, and with nets that keep references."""
