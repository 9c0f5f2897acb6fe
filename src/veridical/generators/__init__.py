"""Who generates: the model in this process, or one behind a URL (vLLM, SGLang, any OpenAI-compatible endpoint)."""
