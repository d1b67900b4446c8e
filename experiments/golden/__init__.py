"""Golden numbers: the originals' answers to synthetic inputs, and ours."""
