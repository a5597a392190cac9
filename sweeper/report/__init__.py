"""What a finished study has shown, as tables and pictures."""
