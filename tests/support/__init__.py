"""What tests share; nothing here imports a test."""
