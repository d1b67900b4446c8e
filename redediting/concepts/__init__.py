"""What must move together and what must stay: lexicon, prompts, retrieval. No tensors."""
