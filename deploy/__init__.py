"""How Touchline is run: reference settings, and the sample world of the demo."""
