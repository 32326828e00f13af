"""What a trained network looks like inside: its weights, filters, errors and confidence."""
