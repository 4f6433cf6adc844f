"""What each optimizer gains over a linear probe when a packaged MiniLM is fine-tuned."""
