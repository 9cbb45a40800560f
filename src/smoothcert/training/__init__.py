"""The one training loop, and what surrounds it: fine-tuning, self-training, several processes."""
