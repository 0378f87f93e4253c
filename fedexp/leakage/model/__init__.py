"""What a finished model gives away of its classes."""
