"""Routes: `product` and `scheduler`; `server_router` holds the documented names."""
