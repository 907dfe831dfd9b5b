"""Models behind an OpenAI-compatible endpoint: hosted, vLLM, Ollama, the llama.cpp server.

`chat.OpenAIChat` is an `LLM`, `embedder.OpenAIEmbedder` an `Embedder`; `endpoint.Endpoint` is what both
share and the only place that knows the vendor's errors. Needs the extra `openai`.
"""
