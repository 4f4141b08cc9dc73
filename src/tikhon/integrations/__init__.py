"""Other people's training loops: one thin file for each, imported only where that library is installed."""
