"""The benchmark ``perception``: from depth images to clouds, by itself and through the node."""
