"""Names that several domains share."""

FIRST_NAMES = (
    "Ada Bruno Carla Dario Elin Farid Greta Hugo Ines Jonas Kaya Luca Mara Nils Olga Pavel Quinn Rosa Stefan Tilda "
    "Umar Vera Wanda Xenia Yusuf Zoe Amir Bella Cyril Dana"
)
LAST_NAMES = (
    "Abel Brandt Costa Dahl Ekman Ferri Gruber Holm Ivanov Jansen Keller Lindt Moreau Novak Olsen Perez Quist Rossi "
    "Sandor Tanner Ulrich Vogel Weber Yilmaz Zeman Arendt Bianchi Corvin Duval Eriksen"
)
