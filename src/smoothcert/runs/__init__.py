"""Whatever fills a store: certify, predict, attack, distributional, here or by many processes."""
