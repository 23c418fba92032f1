"""From files, the hub or the embedded world to preference pairs: forms, conversations, tokens, splits, order."""
