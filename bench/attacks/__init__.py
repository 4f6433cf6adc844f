"""Black-box attacks on small networks that classify Fashion-MNIST."""
