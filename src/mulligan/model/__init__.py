"""One decoder-only transformer whose config spans the Llama and the GPT-2 form."""
