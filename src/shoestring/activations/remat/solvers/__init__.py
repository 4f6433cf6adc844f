"""Who finds orders: each solver takes a graph and a budget and returns an order."""
