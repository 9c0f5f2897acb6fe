"""The only rooms that know Hugging Face internals: loading, views, shared-prefix scoring and sampling."""
