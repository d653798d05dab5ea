"""From text to windows of tokens: sources, tokenizer, shards, the order of samples, and the loader."""
