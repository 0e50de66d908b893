"""Doors into other people's frameworks, and what they share: prompts, batches, answers with their cost."""
