"""Speed and memory of the edit and of image generation, against what others do."""
