"""A hotel chain and a car rental."""

from tools.sample_data.lexicon import (
    Domain,
    Query,
    Table,
    category,
    code,
    date,
    key,
    later,
    number,
    optional,
    pairs,
    person,
    reference,
)

HOTEL_CHAIN = Domain(
    "hotel_chain",
    (
        Table(
            "hotels",
            "hotel",
            25,
            (
                key("hotel_id"),
                pairs(
                    "name",
                    "Royal Garden Harbour Alpine Sunny",
                    "Lodge Palace Court Inn Suites",
                ),
                category("city", ("Bergen", "Seville", "Utrecht", "Cork", "Leeds"), where="in {}"),
                category("stars", (3, 4, 2, 5), noun="number of stars", plural="numbers of stars", counted="stars"),
                number("rooms", 18, 240, counted="rooms", additive=True, most="largest", least="smallest"),
            ),
        ),
        Table(
            "bookings",
            "booking",
            60,
            (
                key("booking_id"),
                person("guest", "of the guest {}", noun="guest name"),
                number("nights", 1, 21, counted="nights", additive=True, most="longest"),
                number("price", 80, 2900, 5, additive=True, most="most expensive", least="cheapest"),
                date("arrived_on", "2022-01-01", "2024-07-31", noun="arrival date", where="starting"),
                optional("request", ("late arrival", "quiet room", "baby bed", "sea view")),
                reference("hotel_id", "hotels", "at"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT name FROM hotels WHERE stars >= 4",
            (
                "List the names of hotels with at least 4 stars.",
                "Which hotels have 4 stars or more? Show their names.",
                "What is the name of every hotel with 4 or more stars?",
            ),
        ),
        Query(
            "multi_filter",
            "SELECT guest FROM bookings WHERE request = 'sea view' AND nights > 3",
            (
                "Which guests asked for a sea view and stayed more than 3 nights?",
                "List the guests of bookings with the request sea view and more than 3 nights.",
            ),
        ),
        Query(
            "filter",
            "SELECT guest, price FROM bookings WHERE price > nights * 200",
            (
                "Show the guest and price of every booking that costs more than 200 per night.",
                "List the guests and prices of bookings whose price is above 200 times the nights.",
            ),
        ),
        Query(
            "join_group",
            "SELECT hotels.city, SUM(bookings.nights) FROM bookings JOIN hotels "
            "ON bookings.hotel_id = hotels.hotel_id GROUP BY hotels.city HAVING SUM(bookings.nights) > 60",
            (
                "In which cities were more than 60 nights booked in total? Show the city and the total.",
                "Show each city with more than 60 booked nights, and the number of those nights.",
            ),
        ),
        Query(
            "join",
            "SELECT bookings.guest, hotels.name FROM bookings JOIN hotels ON bookings.hotel_id = hotels.hotel_id "
            "ORDER BY bookings.price DESC LIMIT 3",
            (
                "Show the guest and hotel name of the 3 most expensive bookings.",
                "For the 3 bookings with the highest price, list the guest and the name of the hotel.",
            ),
        ),
        Query(
            "join",
            "SELECT DISTINCT hotels.name FROM bookings JOIN hotels ON bookings.hotel_id = hotels.hotel_id "
            "WHERE bookings.nights > 14",
            (
                "Which hotels have had a booking of more than 14 nights? Show each name once.",
                "List the different names of hotels with a booking longer than 14 nights.",
            ),
        ),
        Query(
            "group",
            "SELECT city, SUM(rooms) FROM hotels GROUP BY city ORDER BY SUM(rooms) DESC",
            (
                "How many rooms does the chain have in each city? Start with the city that has the most.",
                "Show each city and its total number of rooms, the largest total first.",
            ),
        ),
        Query(
            "date",
            "SELECT guest FROM bookings WHERE arrived_on >= '2024-01-01'",
            (
                "List the guests who arrived on 2024-01-01 or later.",
                "Which guests have an arrival date from 2024-01-01 on?",
            ),
        ),
    ),
)

CAR_RENTAL = Domain(
    "car_rental",
    (
        Table(
            "cars",
            "car",
            32,
            (
                key("car_id"),
                code("plate", "CR"),
                category("fuel", ("petrol", "diesel", "electric", "hybrid"), where="running on {}"),
                number("daily_rate", 24, 160, most="most expensive", least="cheapest"),
                number("mileage_km", 1200, 98000, 100, noun="mileage", unit="km", additive=True),
            ),
        ),
        Table(
            "rentals",
            "rental",
            58,
            (
                key("rental_id"),
                person("customer", "by the customer {}", noun="customer name"),
                category("counter", ("airport", "station", "downtown"), where="from the {} counter"),
                number("days", 1, 30, counted="days", additive=True, most="longest"),
                date("started_on", "2022-03-01", "2024-06-30", noun="start date", where="started"),
                later(
                    "returned_on",
                    "started_on",
                    (1, 30),
                    noun="return date",
                    missing="not returned yet",
                    present="already returned",
                ),
                reference("car_id", "cars", "of"),
            ),
        ),
    ),
    (
        Query(
            "filter",
            "SELECT plate FROM cars WHERE fuel = 'electric'",
            ("List the plates of all electric cars.", "What are the plates of the electric cars?"),
        ),
        Query(
            "count",
            "SELECT COUNT(*) FROM rentals WHERE days > 7",
            (
                "How many rentals lasted longer than 7 days?",
                "Count the rentals of more than 7 days.",
                "What is the number of rentals that took over 7 days?",
            ),
        ),
        Query(
            "aggregate",
            "SELECT AVG(mileage_km) FROM cars WHERE fuel != 'electric'",
            (
                "What is the average mileage of all cars that are not electric?",
                "Leaving out electric cars, how far has a car been driven on average?",
            ),
        ),
        Query(
            "null",
            "SELECT customer, started_on FROM rentals WHERE returned_on IS NULL ORDER BY started_on",
            (
                "Show the customer and start date of rentals that were not returned yet, the earliest start first.",
                "Which rentals are still out? Give the customer and start date in order of the start date.",
            ),
        ),
        Query(
            "join",
            "SELECT rentals.customer, rentals.days * cars.daily_rate FROM rentals JOIN cars "
            "ON rentals.car_id = cars.car_id",
            (
                "Show the customer of every rental and what it costs: its days times the daily rate of the car.",
                "For each rental, give the customer and the days multiplied by the car's daily rate.",
            ),
        ),
        Query(
            "join_group",
            "SELECT cars.fuel, COUNT(DISTINCT rentals.customer) FROM rentals JOIN cars "
            "ON rentals.car_id = cars.car_id GROUP BY cars.fuel",
            (
                "How many different customers rented a car of each fuel?",
                "Show each fuel and the number of distinct customers who rented such a car.",
            ),
        ),
        Query(
            "join",
            "SELECT rentals.customer FROM rentals JOIN cars ON rentals.car_id = cars.car_id "
            "WHERE cars.fuel = 'hybrid' AND rentals.counter = 'airport'",
            (
                "Which customers rented a hybrid car from the airport counter?",
                "List the customers of rentals from the airport counter whose car runs on hybrid.",
            ),
        ),
        Query(
            "subquery",
            "SELECT plate FROM cars WHERE daily_rate < (SELECT MIN(daily_rate) FROM cars WHERE fuel = 'hybrid')",
            (
                "List the plates of cars that are cheaper per day than every hybrid car.",
                "Which cars have a daily rate below the lowest rate of a hybrid car? Show their plates.",
            ),
        ),
    ),
)
