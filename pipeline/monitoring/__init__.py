"""What came back -> retrain or not.

Here: answers of people to the lists that they were shown (`answers`), whether data, taste or live
quality have moved (`drift`), and what that asks for (`policy`): pure functions of frames.
Not here: which list a person could see (`data.shown`), the score of live lists (`evaluation`),
reading the lake and asking for a night (`steps`).
"""
