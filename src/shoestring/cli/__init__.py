"""The command line; its commands import torch only when they run."""
