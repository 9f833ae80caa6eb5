"""What a box is: its settings, its start-up. The only room that knows every other room."""
