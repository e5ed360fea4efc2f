"""Vision-language models as rewards: on this machine through transformers, or behind an OpenAI-compatible server."""
