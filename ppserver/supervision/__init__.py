"""Many contexts: who starts them, where they live, who replaces them."""
