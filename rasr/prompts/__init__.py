"""Text prompts: where they come from and how they are joined (rasr paper, section 3.3 and Table 3)."""

from rasr.prompts.extractors import Given, NoPrompt, PromptExtractor, Sidecar, join_prompts

__all__ = ["Given", "NoPrompt", "PromptExtractor", "Sidecar", "join_prompts"]
