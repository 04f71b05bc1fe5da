from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("number", models.IntegerField(primary_key=True, serialize=False)),
                ("receipt", models.TextField(default="")),
                ("mailed", models.BooleanField(default=False)),
            ],
        ),
    ]
