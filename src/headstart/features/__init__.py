"""What frozen layers saw: computed once, stored, read back."""
