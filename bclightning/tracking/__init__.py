"""How runs reach W&B, where they are compared, and which no run depends on."""
