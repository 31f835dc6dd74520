"""What people do about single messages: try again, edit, discard, replay. Each verb plans, and then acts."""
