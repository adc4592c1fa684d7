"""Conservation of frames: each published frame is recorded, dead-lettered, shed or pending."""
