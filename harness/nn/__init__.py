"""Binarization, layers, batch norms, optimizers and networks. Knows nothing of files."""
