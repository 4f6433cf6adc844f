"""What connects shoestring with other libraries; each module is imported on request only."""
