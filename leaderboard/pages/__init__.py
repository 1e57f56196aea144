"""The leaderboard as self-contained HTML pages: no network, light and dark, for phones, keyboards and readers."""
