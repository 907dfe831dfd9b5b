"""MemChat: conversations in, conversations out, between the scheduler and the API."""
