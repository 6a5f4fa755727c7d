"""What the binaries share: flags, folders, data, trained models."""
