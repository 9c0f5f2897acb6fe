"""Who generates: the model in this process, or one at a URL (vLLM, SGLang, any OpenAI-compatible endpoint)."""
