"""From recorded episodes to tensors."""
