"""What the html page shows: its numbers, its pictures, its templates."""
