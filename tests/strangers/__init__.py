"""Parts that somebody else wrote, and what fedexp says of them."""
