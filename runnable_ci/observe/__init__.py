"""What a step read and made, seen while it ran: nothing here is inferred from names or defaults."""
