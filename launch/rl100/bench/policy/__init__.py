"""The benchmark ``policy``: inference, both real-time nodes and the wire between them."""
